"""Starting and watching a server: plan purely, then act through Docker or as a process of this host."""
