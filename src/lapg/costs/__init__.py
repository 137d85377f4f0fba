"""What communication costs: the ledger of uploads and bits, and links on which they take time and energy."""
