"""Child processes: started, watched, ended, and their deaths explained."""
