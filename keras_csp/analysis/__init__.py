"""Networks counted, beside what is published of them."""
