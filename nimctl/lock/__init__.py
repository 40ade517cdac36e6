"""The register: what exactly is to run, written down; and what runs, held against it."""
