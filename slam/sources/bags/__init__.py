"""ROS 1 bags, ROS 2 bags (SQLite, MCAP) and MCAP files: storage, topics, messages, frames."""
