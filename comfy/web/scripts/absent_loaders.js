// The stock front end keeps a table of ten loader nodes and takes each for granted: when the server lacks one of them, no
// node with a list of checkpoints can be made. This fills the gaps of that table, and of nothing else: an entry is marked
// deprecated, so that no menu or search offers it, and it cannot be put into a graph.
import { app } from "../../scripts/app.js";

const LOADERS = [
  "CheckpointLoaderSimple",
  "ImageOnlyCheckpointLoader",
  "LoraLoader",
  "LoraLoaderModelOnly",
  "VAELoader",
  "ControlNetLoader",
  "UNETLoader",
  "UpscaleModelLoader",
  "StyleModelLoader",
  "GLIGENLoader",
];

const entry = (name) => ({
  name,
  display_name: name,
  description: "This server does not have this node.",
  category: "loaders",
  python_module: "nodes",
  input: { required: {} },
  output: [],
  output_name: [],
  output_is_list: [],
  output_node: false,
  deprecated: true,
});

app.registerExtension({
  name: "server.absentLoaders",
  beforeRegisterVueAppNodeDefs(defs) {
    const there = new Set(defs.map((def) => def.name));
    defs.push(...LOADERS.filter((name) => !there.has(name)).map(entry));
  },
});
