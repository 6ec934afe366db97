"""Testing kit: durable objects in memory, with their time, disk and crashes in the test's hands."""
