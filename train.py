"""Train a sweep: `python train.py -m lr=1e-5,3e-5`. `--help` lists everything that can be set."""

try:
    from bertpar.launch import main
except ModuleNotFoundError as error:
    if error.name != "bertpar":
        raise
    raise SystemExit("error: this Python lacks bertpar: source .venv/bin/activate, or use scripts/sweep") from None

if __name__ == "__main__":
    main()
