"""What a data set is read from: folders, COCO's JSON, TFDS."""
