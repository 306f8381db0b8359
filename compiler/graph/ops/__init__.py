"""The ops, each declared once: attributes, type rule, reference. Float ones first, quantised ones start with q."""
