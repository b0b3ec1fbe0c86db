"Label mappings: from source labels to target labels, f_out."
