"Measures of mappings, and probes of the theory."
