"""The command line: ``wiesel train | evaluate | predict | summary | explain | bench``."""
