"""Fine-tuning in a process of its own: the only code, with evaluation/, that imports torch and Lightning."""
