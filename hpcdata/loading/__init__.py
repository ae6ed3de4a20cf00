"""From a combined dataset to training batches: manifest -> dataset -> order -> layout -> loader."""
