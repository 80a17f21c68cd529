"""Tests of the proofs that units are stable."""
