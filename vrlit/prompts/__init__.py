"Prompts: what is done to the input, f_in."
