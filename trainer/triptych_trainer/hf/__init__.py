"""Local Hugging Face folders to bundles of format version 2 (`docs/import.md`): nothing is fetched,
no code of a folder is run."""
