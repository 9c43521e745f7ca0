"""The only floor that imports Ray: adapters from stages to Ray Train, Data and Tune."""
