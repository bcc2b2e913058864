; Mode 13h: a palette, a pattern written to memory, pixels and a palette entry by the BIOS.
        bits 16
        org 0x7C00
start:  xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov ax, 0x0013
        int 0x10
        mov dx, 0x3C8
        xor al, al
        out dx, al
        inc dx
        xor cx, cx
colour: mov al, cl                      ; red: the low six bits
        and al, 0x3F
        out dx, al
        mov al, cl                      ; green: the high six bits
        shr al, 2
        out dx, al
        mov al, 0x3F                    ; blue: what red leaves
        mov ah, cl
        and ah, 0x3F
        sub al, ah
        out dx, al
        inc cl
        jnz colour
        mov ax, 0xA000
        mov es, ax
        xor di, di
        xor dx, dx                      ; row
row:    xor cx, cx                      ; column
pixel:  mov ax, cx
        xor ax, dx
        stosb
        inc cx
        cmp cx, 320
        jb pixel
        inc dx
        cmp dx, 200
        jb row
        mov ax, 0x1010                  ; register 1: white
        mov bx, 1
        mov cx, 0x3F3F
        mov dh, 0x3F
        int 0x10
        mov cx, 40                      ; a line of pixels by the BIOS
dot:    mov ax, 0x0C01
        mov bh, 0
        mov dx, 100
        int 0x10
        inc cx
        cmp cx, 280
        jb dot
stop:   hlt
        jmp stop
        times 510-($-$$) db 0
        dw 0xAA55
