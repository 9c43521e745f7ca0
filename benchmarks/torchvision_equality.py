"""Is every example of a prepared data set the one that torchvision reads from the same files?

Prepares the source, indexes the shards, decodes every image, and compares count, label and pixels
example by example with torchvision's own data set.
"""

import argparse
import shutil
import tempfile

import numpy as np
import torchvision
from recording import recorded

from raygrad.data.decode import decode_image
from raygrad.data.index import build_index
from raygrad.data.reading import read_rows
from raygrad.data.shards import write_shards
from raygrad.data.sources import SOURCES

DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def reference(source, data_dir, train):
    """Returns torchvision's data set of a split."""
    if source in DATASETS:
        return getattr(torchvision.datasets, DATASETS[source])(data_dir, train)
    folders = ("train",) if train else ("test", "val")
    for folder in folders:
        try:
            return torchvision.datasets.ImageFolder(f"{data_dir}/{folder}")
        except FileNotFoundError:
            continue
    raise FileNotFoundError(data_dir)


def main():
    """Prints what was compared; ends with an error at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=sorted({*DATASETS, "image-folder", "imagenet"}))
    parser.add_argument("--data-dir", required=True)
    args, record = recorded(parser, "The images and labels are those that torchvision reads.")
    source = SOURCES[args.source](args.data_dir)
    out = tempfile.mkdtemp(prefix="equality-")
    try:
        written = write_shards(source, args.source, out, shard_bytes=32 * 2**20, seed=0)
        index = build_index(written.train_urls, written.test_urls, val_fraction=1e-9, strict=True)
        for split, examples in (("train", source.train), ("test", source.test)):
            dataset = reference(args.source, args.data_dir, split == "train")
            rows = index.rows(split)
            assert rows.num_rows == len(examples) == len(dataset), (rows.num_rows, len(dataset))
            place = {key: at for at, key in enumerate(examples.keys())}
            for row in read_rows(index, rows):
                image, label = dataset[place.pop(row.key)]
                pixels = decode_image(row.image, channels=source.channels)
                expected = np.asarray(image).reshape(pixels.shape)
                assert row.label == int(label), row.key
                assert np.array_equal(pixels, expected), row.key
            assert not place
            record.add(source=args.source, split=split, examples=rows.num_rows, equal=True)
            print(f"{args.source} {split}: {rows.num_rows} examples, every label and pixel equal")
    finally:
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
