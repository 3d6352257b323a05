"""Files about the program, generated from settings and choices; ``make manifests`` writes them.

plugin.json (WIPP), ict.yaml (Image-to-Cloud-Tool registries), tune-smp.cwl (Common Workflow Language), and the tables
of docs/flags.md and docs/wipp.md. A test holds all of them to what is generated.
"""
