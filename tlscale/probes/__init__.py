"""Looking without changing: pure functions on arrays that rank bases, measure shift and compare layers."""
