import { pino, type Logger } from "pino";

export type { Logger };

/** The server's logger: JSON lines on stdout, or readable lines where `pretty` is set (a terminal). */
export function createLogger(options: { level: string; pretty: boolean }): Logger {
  return pino({
    level: options.level,
    ...(options.pretty && {
      transport: {
        target: "pino-pretty",
        options: { ignore: "pid,hostname", translateTime: "SYS:HH:MM:ss", singleLine: true },
      },
    }),
  });
}
