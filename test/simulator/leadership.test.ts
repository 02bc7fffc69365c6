import { leadership } from "./leadership/mutants.js";
import { testSimulation } from "./test-simulation.js";

testSimulation(leadership);
