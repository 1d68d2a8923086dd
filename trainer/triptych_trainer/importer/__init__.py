"""Public checkpoints to models here, without ever running what is in them."""
