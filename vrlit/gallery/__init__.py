"Beyond photographs: sources, prompts and tasks of other data."
