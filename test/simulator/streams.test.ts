import { streams } from "./streams/mutants.js";
import { testSimulation } from "./test-simulation.js";

testSimulation(streams);
