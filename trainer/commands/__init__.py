"""The trainer's commands: options and help, without torch until there is work to do."""
