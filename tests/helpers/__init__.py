"""What tests share, and programs that tests launch."""
