"""Real-time dense monocular SLAM: video to depth with differentiable structure from motion."""

__version__ = "0.1.0"
