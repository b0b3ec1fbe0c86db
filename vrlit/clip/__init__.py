"Vision-language sources: a source whose labels are texts."
