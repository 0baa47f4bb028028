"""What a labelled synthetic set is: records, splits, formats, and the model of people who do not exist."""
