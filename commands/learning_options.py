"""Options that several commands of the trainer have, by what they are for."""

# Fields of `TrainOptions`: how any model learns.
LEARNING = (
    "size",
    "width",
    "heads",
    "layers",
    "mlp_width",
    "batch_size",
    "accumulate",
    "seed",
    "steps",
    "optimizer",
    "learning_rate",
    "schedule",
    "warmup",
    "weight_decay",
    "betas",
    "z_loss",
    "clip",
    "precision",
    "compile",
)
# What decides nothing but how a run goes.
RUNNING = ("validate_every", "checkpoint_every", "keep", "device", "parallel")
