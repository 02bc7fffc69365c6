import { successions } from "./queues/succession-mutants.js";
import { testSimulation } from "./test-simulation.js";

testSimulation(successions);
