# What is logged is shown with the test that fails.
ExUnit.start(capture_log: true)
