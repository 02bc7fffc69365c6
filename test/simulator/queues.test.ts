import { queues } from "./queues/mutants.js";
import { testSimulation } from "./test-simulation.js";

testSimulation(queues);
