print("martlet-device")
