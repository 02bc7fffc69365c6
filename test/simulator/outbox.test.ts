import { outbox } from "./outbox/mutants.js";
import { testSimulation } from "./test-simulation.js";

testSimulation(outbox);
