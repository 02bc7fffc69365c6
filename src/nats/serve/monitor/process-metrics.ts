/** Metrics of the process, with the names and labels of prom-client, which dashboards for Node.js know. */
import { readdirSync, readFileSync } from "node:fs";
import { constants, monitorEventLoopDelay, type PerformanceEntry, PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics } from "node:v8";
import { Histogram, type MetricFamily } from "../../../foundation/monitor/index.js";

const collectionKinds: ReadonlyMap<number, string> = new Map([
  [constants.NODE_PERFORMANCE_GC_MAJOR, "major"],
  [constants.NODE_PERFORMANCE_GC_MINOR, "minor"],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, "incremental"],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, "weakcb"],
]);
const collectionBuckets = { buckets: [0.001, 0.01, 0.1, 1, 2, 5] };

const startedAt = Math.round(Date.now() / 1_000 - process.uptime());

/** Functions of Node.js without a type. */
const { _getActiveHandles: activeHandles, _getActiveRequests: activeRequests } = process as unknown as Readonly<
  Record<"_getActiveHandles" | "_getActiveRequests", (() => readonly object[]) | undefined>
>;

export class ProcessMetrics {
  readonly #delays = monitorEventLoopDelay({ resolution: 10 });
  /** Delay of the turn of the event loop after the last reading, in seconds. */
  #lag = 0;
  /** Durations of garbage collections by their kind. */
  readonly #collections = new Map<string, Histogram>();
  readonly #observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) this.#observe(entry);
  });

  constructor() {
    this.#delays.enable();
    this.#observer.observe({ entryTypes: ["gc"] });
  }

  /** Reads all metrics. The delays of the event loop are those since the last reading. */
  read(): MetricFamily[] {
    const cpu = process.cpuUsage();
    const { rss, heapTotal, heapUsed, external } = process.memoryUsage();
    const { version } = process;
    const [major = "", minor = "", patch = ""] = version.slice(1).split(".");
    const spaces = getHeapSpaceStatistics();
    const perSpace = (property: "space_size" | "space_used_size" | "space_available_size") =>
      spaces.map((each) => [{ space: each.space_name.replace(/_space$/, "") }, each[property]] as const);
    return [
      total("process_cpu_user_seconds_total", "Time of the CPU in the program.", cpu.user / 1e6),
      total("process_cpu_system_seconds_total", "Time of the CPU in the kernel.", cpu.system / 1e6),
      total("process_cpu_seconds_total", "Time of the CPU.", (cpu.user + cpu.system) / 1e6),
      gauge("process_start_time_seconds", "Unix time of the start.", startedAt),
      gauge("process_resident_memory_bytes", "Resident memory.", rss),
      gauge("process_virtual_memory_bytes", "Virtual memory.", procNumber("status", /^VmSize:\s+(\d+) kB$/m, 1_024)),
      gauge("process_heap_bytes", "Data segment.", procNumber("status", /^VmData:\s+(\d+) kB$/m, 1_024)),
      gauge("process_open_fds", "Open file descriptors.", openFiles()),
      gauge("process_max_fds", "Limit of open file descriptors.", procNumber("limits", /^Max open files +(\d+)/m)),
      ...this.#readDelays(),
      ...byType(
        "nodejs_active_resources",
        "Resources that keep the event loop alive",
        process.getActiveResourcesInfo(),
      ),
      ...byType("nodejs_active_handles", "Active handles of libuv", activeHandles?.().map(classOf)),
      ...byType("nodejs_active_requests", "Active requests of libuv", activeRequests?.().map(classOf)),
      gauge("nodejs_heap_size_total_bytes", "Heap.", heapTotal),
      gauge("nodejs_heap_size_used_bytes", "Used heap.", heapUsed),
      gauge("nodejs_external_memory_bytes", "Memory of objects outside the heap.", external),
      gauges("nodejs_heap_space_size_total_bytes", "Size of a space of the heap.", perSpace("space_size")),
      gauges("nodejs_heap_space_size_used_bytes", "Used part of the space.", perSpace("space_used_size")),
      gauges("nodejs_heap_space_size_available_bytes", "Free part of the space.", perSpace("space_available_size")),
      gauges("nodejs_version_info", "Always 1; the labels are the version of Node.js.", [
        [{ version, major, minor, patch }, 1],
      ]),
      {
        name: "nodejs_gc_duration_seconds",
        type: "histogram",
        help: "Duration of garbage collections.",
        samples: [...this.#collections].map(([kind, durations]) => [{ kind }, durations]),
      },
    ];
  }

  /** Ends the measurements. */
  close(): void {
    this.#delays.disable();
    this.#observer.disconnect();
  }

  #observe(entry: PerformanceEntry): void {
    const { detail, duration } = entry as PerformanceEntry & { readonly detail: { readonly kind: number } };
    const kind = collectionKinds.get(detail.kind);
    if (kind === undefined) return;
    let durations = this.#collections.get(kind);
    if (durations === undefined) this.#collections.set(kind, (durations = new Histogram(collectionBuckets)));
    durations.observe(duration / 1_000);
  }

  #readDelays(): MetricFamily[] {
    const delays = this.#delays;
    const { min, max, mean, stddev } = delays;
    const [p50, p90, p99] = [delays.percentile(50), delays.percentile(90), delays.percentile(99)];
    delays.reset();
    const readAt = performance.now();
    setImmediate(() => {
      this.#lag = (performance.now() - readAt) / 1_000;
    });
    return [
      gauge("nodejs_eventloop_lag_seconds", "Delay of the event loop at the scrape before.", this.#lag),
      ...Object.entries({ min, max, mean, stddev, p50, p90, p99 }).map(([name, nanoseconds]) =>
        gauge(
          `nodejs_eventloop_lag_${name}_seconds`,
          `Delays of the event loop since the scrape before: ${name}.`,
          nanoseconds / 1e9,
        ),
      ),
    ];
  }
}

function total(name: string, help: string, value: number): MetricFamily {
  return { name, type: "counter", help, samples: [[{}, value]] };
}

function gauges(name: string, help: string, samples: MetricFamily["samples"]): MetricFamily {
  return { name, type: "gauge", help, samples };
}

/** @param value undefined if the platform does not tell it */
function gauge(name: string, help: string, value: number | undefined): MetricFamily {
  return gauges(name, help, value === undefined ? [] : [[{}, value]]);
}

/** Metrics of objects: how many there are of each type, and of all types. */
function byType(name: string, what: string, types: readonly string[] = []): MetricFamily[] {
  const counts = new Map<string, number>();
  for (const type of types) counts.set(type, (counts.get(type) ?? 0) + 1);
  const samples = [...counts].map(([type, count]) => [{ type }, count] as const);
  return [gauges(name, `${what}, by type.`, samples), gauge(`${name}_total`, `${what}.`, types.length)];
}

function classOf(object: object): string {
  return object.constructor?.name ?? "Object";
}

/**
 * Number in a file of Linux about the process, such as `status`; undefined on other systems.
 *
 * @param unit unit of the number in the file
 */
function procNumber(file: string, pattern: RegExp, unit = 1): number | undefined {
  try {
    const found = pattern.exec(readFileSync(`/proc/self/${file}`, "utf8"))?.[1];
    return found === undefined ? undefined : Number(found) * unit;
  } catch {
    return undefined;
  }
}

function openFiles(): number | undefined {
  try {
    // Without the one of the directory itself.
    return readdirSync("/proc/self/fd").length - 1;
  } catch {
    return undefined;
  }
}
