"""Tables as text: aligned columns, or Markdown."""


def aligned(rows, right=()):
    """Lines with the columns of `rows` aligned, those in `right` rightwards."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def markdown(rows, right=()):
    """Lines of a Markdown table; the first row is its header."""
    header, *body = rows
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *body)]
