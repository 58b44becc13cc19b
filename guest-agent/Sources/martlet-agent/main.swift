import AgentServer

await Agent.main(CommandLine.arguments)
