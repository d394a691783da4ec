"""Edge: the V3 node API and the value classes that custom nodes import (contract: custom-nodes.md section 4)."""
