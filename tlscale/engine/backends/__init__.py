"""The ways to train one module on several processes, behind one protocol: `tlscale.engine.backend`."""
