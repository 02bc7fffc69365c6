import { channels } from "./channels/simulation.js";
import { testSimulation } from "./test-simulation.js";

testSimulation(channels);
