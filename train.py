"""Train a sweep: `python train.py -m lr=1e-5,3e-5`. `--help` lists everything that can be set."""

from bertpar.launch import main

if __name__ == "__main__":
    main()
