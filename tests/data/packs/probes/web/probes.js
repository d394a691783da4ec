export const probes = true;
