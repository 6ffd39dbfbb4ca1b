"""What a user asks for: each task trains on labelled data of the user and answers texts."""
