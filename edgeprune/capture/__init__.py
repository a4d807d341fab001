"""From a module to a functional graph whose batch is dynamic, and what is written of it."""
