import AgentServer

Agent.main(CommandLine.arguments)
