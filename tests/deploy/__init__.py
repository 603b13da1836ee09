"""Tests of deploy/: what it starts is started."""
