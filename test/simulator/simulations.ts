import { channels } from "./channels/simulation.js";
import { leadership } from "./leadership/mutants.js";
import { leases } from "./leases/mutants.js";
import { outbox } from "./outbox/mutants.js";
import { queues } from "./queues/mutants.js";
import { successions } from "./queues/succession-mutants.js";
import type { Simulation } from "./simulation.js";
import { streams } from "./streams/mutants.js";
import { workers } from "./workers/mutants.js";

/** All simulations. */
export const simulations: readonly Simulation[] = [
  channels,
  outbox,
  leases,
  workers,
  streams,
  leadership,
  queues,
  successions,
];
