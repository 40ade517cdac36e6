"""The doctor: look at the host once (`facts`), judge what was seen (`checks`), say what to do (`runner`)."""
