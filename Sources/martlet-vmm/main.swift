print("martlet-vmm")
